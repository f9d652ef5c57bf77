import sys

import uvicorn
from counting import summed
from fastapi import FastAPI
from pydantic import BaseModel


class Asked(BaseModel):
    x: list[float]


app = FastAPI()


@app.post("/predict")
async def predict(asked: Asked):
    return summed(asked.model_dump())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
