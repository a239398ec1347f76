"""The clients that chat backends use, real and unmodified, against a served instance."""
