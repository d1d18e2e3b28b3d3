"""What a run is made of, as data: one dataclass per option group, each of which builds its part."""
