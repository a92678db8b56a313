"""The C++ kernel behind ctypes."""
