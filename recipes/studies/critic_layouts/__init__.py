"""Critics' layouts and orderings: ``ctde-mappo study=critic_layouts`` trains, ``ctde critic-layouts`` reports."""
