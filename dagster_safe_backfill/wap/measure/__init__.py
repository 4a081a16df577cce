"""How audits are measured."""
