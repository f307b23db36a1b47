"""People paint human maps in the browser."""
