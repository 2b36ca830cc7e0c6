"""Situations in which a cache could reuse what belongs to another call: one file a kind."""
