"""The report section by section: what each says, as finished strings for both templates."""
