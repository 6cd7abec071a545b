"""How good a front each search method and each careful person's baseline reaches for the training epochs it spends."""
