"""A service that takes what it takes in all the ways that FastAPI has."""

import sys
from typing import Annotated, Literal
from uuid import UUID

import uvicorn
from counting import count
from fastapi import Cookie, FastAPI, File, Form, Header, Query, UploadFile
from pydantic import BaseModel, Field


class Asked(BaseModel):
    x: list[float] = Field(min_length=2)
    share: float = Field(gt=0, lt=1)
    text: str
    size: Literal["s", "m"] = "m"


def counted(told):
    """What all say that have been asked as they want to be."""
    count()
    return told


app = FastAPI()


@app.post("/predict")
async def predict(asked: Asked, version: str = Query(), x_tenant: str = Header()):
    return counted({"x": asked.x, "version": version, "tenant": x_tenant})


@app.post("/text")
async def text(
    text: str,
    n: Annotated[int, Query(ge=10)],
    deep: bool,
    odd: Annotated[str | None, Query()] = None,
):
    return counted({"text": text, "n": n, "deep": deep, "odd": odd})


@app.post("/v1/classify/{model}")
async def classify(model: str, asked: Asked, id: UUID, session: Annotated[str, Cookie()]):
    return counted({"model": model, "id": id, "session": session, "x": asked.x})


@app.post("/fields")
async def fields(prompt: Annotated[str, Form()], n: Annotated[int, Form()]):
    return counted({"prompt": prompt, "n": n})


@app.post("/upload")
async def upload(photo: UploadFile, label: Annotated[str, Form()], plain: Annotated[bytes, File()]):
    return counted({"label": label, "bytes": len(await photo.read()) + len(plain)})


@app.put("/models/{number}")
async def put(number: int, asked: Asked):
    return counted({"number": number, "x": asked.x})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
