"""Networks in which agents talk to each other before they act: BiCNet, CommNet, TarMAC."""
