// The phone's camera inside the page, and why it cannot be used, in words.
//
// export async function openCamera(video) -> {shoot() -> Promise<Blob>, close()}      throws what getUserMedia throws
// export function cameraProblem(error) -> string

export async function openCamera(video) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: false,
    video: { facingMode: { ideal: "environment" }, width: { ideal: 1920 }, height: { ideal: 1440 } },
  });
  video.srcObject = stream;
  await video.play();
  return {
    shoot: () => frame(video),
    close() {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
    },
  };
}

async function frame(video) {
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the camera gave no picture"))), "image/jpeg", 0.95);
  });
}

export function cameraProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser may not use the camera: it was refused, here or in the phone's settings. Allow it for this " +
        "page (the sign beside the address), or use the phone's own camera app.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "This device has no camera that the browser can use. Choose a photo instead.";
    case "NotReadableError":
    case "AbortError":
      return "Another app is using the camera. Close it and try again, or use the phone's own camera app.";
    default:
      return `The camera did not start (${error.message || error.name}). Use the phone's own camera app.`;
  }
}
