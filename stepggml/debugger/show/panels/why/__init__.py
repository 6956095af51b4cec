"""Panels of `why`: where a value comes from, and the reasons for places, order and backends."""
