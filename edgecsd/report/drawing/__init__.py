"""Style, plots and HTML that both pages share."""
