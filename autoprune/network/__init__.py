"""How any network is called: its inputs and outputs, its modes and its device."""
