"""Optimizers, schedules, and what each parameter is to them."""
