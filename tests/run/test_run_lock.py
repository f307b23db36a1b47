"""One process trains a run, even if many begin at once, after kills, on other machines, whatever the clocks say."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saliency_entropy.errors import UserError
from saliency_entropy.run import lock as run_lock
from saliency_entropy.run import whole_files
from saliency_entropy.run.attempts import read_attempts
from saliency_entropy.run.lock import held, read_owner, state
from saliency_entropy.run.whole_files import remove_parts, write_atomically

ROOT = Path(__file__).parents[2]
DAY = 86_400
HOLD = """
import sys
from pathlib import Path
from saliency_entropy.errors import UserError
from saliency_entropy.run.lock import held

try:
    with held(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.read()
except UserError as error:
    print(error, flush=True)
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Begin a process that holds a folder until it is killed, and says so or why not."""
    begun = []

    def hold(folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, folder]
        begun.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield hold
    for process in begun:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def newest(folder: Path) -> Path:
    return max((folder / ".owner").iterdir(), key=lambda claim: int(claim.stem))


def elsewhere(folder: Path, silent: float = 0.0, **changes: object) -> Path:
    """Make the claim in a folder one of a process on another machine, whose last sign of life was so long ago."""
    claim = newest(folder)
    owner = json.loads(claim.read_text()) | {"host": "node7", "machine": "another", "pid": os.getpid()} | changes
    claim.write_text(json.dumps(owner))
    times = claim.stat().st_mtime - silent
    os.utime(claim, (times, times))
    return claim


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder whose owner was killed; its claim can be made another's."""
    program = (
        "import os, sys; from pathlib import Path; from saliency_entropy.run.lock import held\n"
        "with held(Path(sys.argv[1])): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "run"]).returncode == 9
    return tmp_path / "run"


@pytest.mark.usefixtures("_quick")
def test_who_held_a_folder_when_it_was_killed_is_told(left: Path, tmp_path: Path) -> None:
    elsewhere(left, DAY)
    killed = read_owner(left)
    with held(left) as before:
        assert before == killed is not None
    for folder in (left, tmp_path / "new"):
        with held(folder) as before:
            assert before is None


def test_a_claim_of_a_later_version_is_respected(tmp_path: Path) -> None:
    with held(tmp_path):
        owner = read_owner(tmp_path)
        elsewhere(tmp_path, queue="long", beat="said otherwise")
        again = held(tmp_path)
        with pytest.raises(UserError, match=r"is being trained by process \d+ on node7"):
            again.__enter__()
        assert read_owner(tmp_path).started == owner.started


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    monkeypatch.setattr(run_lock, "WATCH", 0.4)


def test_a_folder_is_held_and_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run = tmp_path / "run"
    assert (read_owner(run), state(run)) == (None, "free")
    with held(run):
        owner = read_owner(run)
        assert (owner.pid, owner.job, state(run)) == (os.getpid(), "4711", "held")
        again = held(run)
        with pytest.raises(UserError) as caught:
            again.__enter__()
        assert str(caught.value) == (
            f"{run} is being trained by process {os.getpid()} on {owner.host}, Slurm job 4711, since {owner.started}: "
            "wait for it, or give another study="
        )
        with held(tmp_path / "other"):
            pass
    assert (read_owner(run), state(run)) == (None, "free")
    for _ in range(3):
        with held(run):
            pass
    assert len(list((run / ".owner").iterdir())) == 1


def test_an_error_lets_go_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held(tmp_path):
        raise RuntimeError
    assert state(tmp_path) == "free"


def test_of_sixteen_processes_one_holds_and_the_others_say_why(tmp_path: Path, start: Callable) -> None:
    holds = [start(tmp_path / "run") for _ in range(16)]
    said = {}
    for process in holds[:]:
        said[process.pid] = process.stdout.readline().strip()
    (winner,) = [pid for pid, line in said.items() if line == "mine"]
    others = [line for line in said.values() if line != "mine"]
    assert len(others) == 15
    assert {re.sub("since .*: wait", "since ...: wait", line) for line in others} == {
        f"{tmp_path / 'run'} is being trained by process {winner} on {os.uname().nodename}, since ...: wait for it, or "
        "give another study="
    }


LAUNCHES = """
import os, runpy, sys, time
from contextlib import contextmanager
from pathlib import Path
from saliency_entropy import training

script, folder, *arguments = sys.argv[1:]
claimed, train = training._claimed, training.train_and_score

@contextmanager
def timed(*of_run):
    begun = time.monotonic()
    try:
        with claimed(*of_run) as to_train:
            yield to_train
    except ValueError:
        Path(folder, f"{os.getpid()}.left").write_text(str(time.monotonic() - begun))
        raise

def when_the_others_have_left(*of_run):
    until = time.monotonic() + 600
    while len(list(Path(folder).glob("*.left"))) < 15 and time.monotonic() < until:
        time.sleep(0.05)
    train(*of_run)

training._claimed, training.train_and_score = timed, when_the_others_have_left
children = []
for number in range(16):
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(f"{folder}/{os.getpid()}.said", "w", buffering=1)
        sys.argv = [script, *arguments]
        code = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code)
    children.append(pid)
print(*sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


@pytest.mark.timeout(900)
def test_of_sixteen_launches_of_a_run_one_trains_it_and_the_others_leave_soon(small: list[str], tmp_path: Path) -> None:
    arguments = [*small, "method=droid", "trainer.max_epochs=1", f"runs_dir={tmp_path}/runs"]
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHES, ROOT / "experiments" / "train.py", tmp_path, *arguments],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1].split() == ["0"] + ["1"] * 15, ended.stderr
    assert [attempt["state"] for attempt in read_attempts(tmp_path / "runs/faces/droid/seed0")] == ["finished"]
    said = [path.read_text() for path in tmp_path.glob("*.said")]
    assert sum("is being trained by process" in text and "Traceback" not in text for text in said) == 15
    seconds = [float(path.read_text()) for path in tmp_path.glob("*.left")]
    assert len(seconds) == 15
    # Milliseconds, and seconds where sixteen processes have their turns on few cores; waiting for the owner to let go
    # would be 600.
    assert max(seconds) < 60


def test_who_is_refused_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock.time, "sleep", lambda _: pytest.fail("it waited"))
    for prepare in (lambda: None, lambda: elsewhere(tmp_path)):
        with held(tmp_path):
            prepare()
            with pytest.raises(UserError, match="is being trained by"):
                held(tmp_path).__enter__()


def test_what_a_killed_process_held_is_free_at_once(left: Path) -> None:
    owner = read_owner(left)
    assert (state(left), owner.pid != os.getpid()) == ("stale", True)
    with held(left):
        assert read_owner(left).pid == os.getpid()
    assert [claim.name for claim in (left / ".owner").iterdir()] == ["2.claim"]


def test_of_many_that_find_a_killed_owner_one_takes_over(left: Path, start: Callable) -> None:
    said = [process.stdout.readline() for process in [start(left) for _ in range(8)]]
    assert said.count("mine\n") == 1


def test_a_process_that_was_killed_and_not_yet_waited_for_has_ended(tmp_path: Path, start: Callable) -> None:
    process = start(tmp_path)
    assert process.stdout.readline() == "mine\n"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert state(tmp_path) == "stale"


def test_another_process_of_the_same_number_is_not_the_owner(left: Path) -> None:
    claim = newest(left)
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": os.getpid()}))
    assert state(left) == "stale"


def test_a_stopped_owner_on_this_machine_is_not_robbed(tmp_path: Path, start: Callable) -> None:
    """However long: its sign of life is not asked for."""
    process = start(tmp_path)
    assert process.stdout.readline() == "mine\n"
    process.send_signal(signal.SIGSTOP)
    os.utime(newest(tmp_path), (0, 0))
    assert state(tmp_path) == "held"
    with pytest.raises(UserError, match="is being trained by process"):
        held(tmp_path).__enter__()


def test_an_owner_elsewhere_holds_while_it_gives_signs_of_life(left: Path) -> None:
    elsewhere(left, silent=run_lock.SILENCE / 2)
    assert state(left) == "held"
    with pytest.raises(UserError, match=r"on node7, .*\(if node7 is lost, the run can be taken over after 10 min"):
        held(left).__enter__()


@pytest.mark.usefixtures("_quick")
def test_an_owner_elsewhere_that_is_silent_is_watched_and_then_taken_for_gone(left: Path) -> None:
    elsewhere(left, silent=run_lock.SILENCE + 60)
    assert state(left) == "stale"
    begun = time.monotonic()
    with held(left):
        assert read_owner(left).pid == os.getpid()
    assert time.monotonic() - begun > run_lock.WATCH


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("off", [-DAY, DAY])
def test_the_clock_of_the_file_server_may_be_a_day_off(left: Path, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    """An owner that lives is seen to live; one that does not is taken for gone, though its last sign of life is to
    come."""
    claim = elsewhere(left, silent=off)
    beats = iter(range(1, 100))

    def sleep(seconds: float, sleep: Callable = time.sleep) -> None:
        sleep(seconds)
        times = claim.stat().st_mtime + next(beats)
        os.utime(claim, (times, times))

    with monkeypatch.context() as patch:
        patch.setattr(run_lock.time, "sleep", sleep)
        with pytest.raises(UserError, match="on node7"):
            held(left).__enter__()
    with held(left):
        pass


@pytest.mark.parametrize("off", [-DAY, DAY])
def test_the_clock_of_this_machine_is_not_asked(left: Path, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + off)
    elsewhere(left)
    assert state(left) == "held"


def test_a_job_that_slurm_has_restarted_takes_over_at_once(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    elsewhere(left, job="4711")
    assert state(left) == "held"  # another process of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert state(left) == "stale"
    monkeypatch.setenv("SLURM_JOB_ID", "4712")
    assert state(left) == "held"


MACHINE_ID = "0123456789abcdef" * 2


def before_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Path:
    """Make the claim one of this machine before a power cut; the machine was started minutes ago."""
    file = folder.parent / "machine-id"
    file.write_text(f"{MACHINE_ID}\n")
    monkeypatch.setattr(run_lock, "MACHINE_ID", file)
    monkeypatch.setattr(run_lock, "_uptime", lambda: 200.0)
    here = {"host": socket.gethostname(), "machine": "earlier pid:[1]", "installation": run_lock._installation()}
    return elsewhere(folder, **({"silent": 400.0} | here | changes))


@pytest.mark.usefixtures("_quick")
def test_after_a_power_cut_the_same_machine_does_not_wait(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = before_the_start(left, monkeypatch)
    assert MACHINE_ID not in claim.read_text()
    assert state(left) == "stale"
    with held(left):
        assert read_owner(left).installation == run_lock._installation() is not None


@pytest.mark.parametrize(
    "changes", [{"silent": 50.0}, {"host": "node7"}, {"installation": "another"}, {"installation": None}], ids=str
)
def test_who_may_be_on_another_machine_is_waited_for(
    left: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """As one is whose last sign of life came when this machine had been started: another of the same image."""
    before_the_start(left, monkeypatch, **changes)
    assert state(left) == "held"


@pytest.mark.parametrize("content", ["", "uninitialized\n", None])
def test_a_machine_without_an_identity_waits(left: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    before_the_start(left, monkeypatch, installation=None)
    run_lock.MACHINE_ID.unlink()
    if content is not None:
        run_lock.MACHINE_ID.write_text(content)
    assert run_lock._installation() is None
    assert state(left) == "held"


@pytest.mark.usefixtures("_quick")
def test_a_machine_of_the_same_identity_that_lives_is_seen_to(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = before_the_start(left, monkeypatch)
    monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: os.utime(claim))
    with pytest.raises(UserError, match="is being trained by process"):
        held(left).__enter__()


def test_a_claim_of_an_earlier_version_holds(left: Path) -> None:
    claim = elsewhere(left)
    owner = json.loads(claim.read_text())
    del owner["installation"]
    claim.write_text(json.dumps(owner))
    assert state(left) == "held"


@pytest.mark.usefixtures("_quick")
def test_an_owner_gives_signs_of_life(tmp_path: Path) -> None:
    with held(tmp_path):
        first = read_owner(tmp_path).beat
        until = time.monotonic() + 120
        while read_owner(tmp_path).beat == first:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_who_was_robbed_finds_out_before_it_writes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with held(run):
        write_atomically(run / "metrics.csv", "mine")
        elsewhere(run, silent=run_lock.SILENCE + 60)
        newest(run).rename(run / ".owner" / "2.claim")  # by a process on another machine
        with pytest.raises(UserError, match=r"run was taken over by process \d+ on node7, .* without writing anything"):
            write_atomically(run / "metrics.csv", "robbed")
        write_atomically(tmp_path / "elsewhere", "mine")
    assert (run / "metrics.csv").read_text() == "mine"
    assert [path.name for path in run.iterdir() if path.suffix == ".part"] == []
    assert read_owner(run).host == "node7", "it is not this process's to let go of"


def test_who_sleeps_after_its_last_look_drops_no_checkpoint_of_the_taker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    resume, before = (run / "checkpoints" / name for name in ("resume.ckpt", "resume-before.ckpt"))
    look = whole_files.require_held

    def sleep_after(path: Path) -> None:
        look(path)
        monkeypatch.setattr(whole_files, "require_held", look)
        elsewhere(run, silent=run_lock.SILENCE + 60)
        newest(run).rename(run / ".owner" / "2.claim")  # by a process on another machine, which goes on
        remove_parts(run)
        resume.write_text("taker's epoch 3")
        before.write_text("taker's epoch 2")

    with held(run):
        for epoch in (0, 1):
            with whole_files.written_whole(resume, before) as temporary:
                temporary.write_text(f"epoch {epoch}")
        assert (resume.read_text(), before.read_text()) == ("epoch 1", "epoch 0")
        monkeypatch.setattr(whole_files, "require_held", sleep_after)
        with (
            pytest.raises(UserError, match=r"run was taken over by process \d+ on node7"),
            whole_files.written_whole(resume, before) as temporary,
        ):
            temporary.write_text("epoch 2")
    assert (resume.read_text(), before.read_text()) == ("taker's epoch 3", "taker's epoch 2")
    assert {path.name for path in resume.parent.iterdir()} == {"resume.ckpt", "resume-before.ckpt"}


def test_a_number_that_was_given_before_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped between looking and claiming, while others came and went."""
    for _ in range(2):
        with held(tmp_path):
            pass
    assert newest(tmp_path).name == "2.claim"
    found, original = iter([(0, None)]), run_lock._newest
    monkeypatch.setattr(run_lock, "_newest", lambda claims: next(found, original(claims)))
    with held(tmp_path):
        assert newest(tmp_path).name == "3.claim"


def test_a_claim_that_a_power_cut_emptied_holds_nobody_up(left: Path) -> None:
    for content in (b"", b"\0" * 200, b'{"pid": 3'):
        newest(left).write_bytes(content)
        assert state(left) == "free"
    with held(left):
        pass


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"run/\.owner cannot be written to \(Not a directory\); give another runs_d"):
        held(tmp_path / "run").__enter__()
