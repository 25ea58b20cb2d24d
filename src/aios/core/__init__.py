"""Models and their sizes; import-light, the models themselves live in `aios.core.hrm_models`."""
