"""Hydra finds sweepers only in a package of this name; the settings of these are in conf/hydra/sweeper."""
