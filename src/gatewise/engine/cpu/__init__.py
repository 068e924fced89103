"""The compiled CPU engine: equations to LLVM IR to machine code, on torch's threads."""
