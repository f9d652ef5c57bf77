import bentoml
from counting import summed


@bentoml.service
class Sum:
    @bentoml.api
    def predict(self, x: list[float]) -> dict[str, float]:
        return summed({"x": x})
