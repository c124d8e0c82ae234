"""What a person sees of a dataset: a page, a contact sheet, the spread of its bands."""
