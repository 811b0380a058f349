"""How the embedded model and its scorer were made. Nothing outside this folder imports it."""
