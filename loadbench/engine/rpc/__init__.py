"""The engine's gRPC front: the Open Inference Protocol with Triton's extensions, and gRPC's health
service. Imported only where it is asked for; what is asked and answered is the same as over HTTP.
"""
