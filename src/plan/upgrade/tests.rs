//! Plans of upgrades, by example.
