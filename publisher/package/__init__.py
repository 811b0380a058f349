"""The signed package: what lies where, how it is built and signed, and the strict check of a foreign one."""
