"""An evaluation as files: JSON, CSV, Markdown, pictures and one page."""
