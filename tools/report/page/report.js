// Loads a case when it is opened. Its file is a script that calls hand(case, content), which works without a server.
"use strict";
const waiting = {};

function load(file) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = resolve;
    script.onerror = () => reject(new Error(file + " is missing; keep all files of the report together."));
    document.head.append(script);
  });
}

function hand(name, content) {
  waiting[name](content);
}

function tile(parent, caption) {
  const figure = parent.appendChild(document.createElement("figure"));
  figure.className = "tile";
  const text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(text);
  return figure;
}

// shows the tile of one slice through a window over the mosaic, whose tiles are in the order of z, row by row
function place(element, content, slice) {
  const rows = Math.ceil(content.shape[2] / content.columns);
  const share = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0) + "%";
  const [column, row] = [slice % content.columns, Math.floor(slice / content.columns)];
  element.style.backgroundPosition = share(column, content.columns) + " " + share(row, rows);
  element.style.backgroundSize = 100 * content.columns + "% " + 100 * rows + "%";
}

function showSlices(root, content) {
  const [slider, number, layer] = ["input", "output", ".layer"].map((name) => root.querySelector(name));
  const edges = content.shape.map((edge, axis) => edge * content.spacing[axis]);
  const windows = Object.entries(content.images).map(([name, image]) => {
    const figure = tile(root.querySelector(".modalities"), name);
    const view = document.createElement("div");
    view.style.aspectRatio = edges[0] + " / " + edges[1];
    figure.prepend(view);
    for (const [mark, style] of Object.entries({ R: "left:3px;top:48%", L: "right:3px;top:48%", A: "left:48%;top:3px", P: "left:48%;bottom:3px" })) {
      figure.insertAdjacentHTML("beforeend", `<u style="${style}">${mark}</u>`);
    }
    return [view, image];
  });
  const both = ["prediction", "reference"].filter((kind) => kind in content.layers);
  const choices = Object.fromEntries(Object.keys(content.layers).map((name) => [name, [name]]));
  const shown = both.length == 2 ? { "prediction and reference": both, ...choices } : choices;
  for (const name of [...Object.keys(shown), "scan alone"]) layer.add(new Option(name));
  slider.max = content.shape[2] - 1;
  slider.value = content.centre[2];
  function draw() {
    const over = (shown[layer.value] || []).map((name) => `url(${content.layers[name]})`);
    for (const [view, image] of windows) {
      view.style.backgroundImage = [...over, `url(${image})`].join(",");
      place(view, content, +slider.value);
    }
    number.textContent = "slice " + (+slider.value + 1) + " of " + content.shape[2];
  }
  slider.oninput = layer.onchange = draw;
  draw();
  for (const [name, image] of Object.entries(content.planes)) {
    const figure = tile(root.querySelector(".planes"), name);
    figure.prepend(Object.assign(new Image(), { src: image, alt: name }));
  }
}

const bytes = (uri) => Uint8Array.from(atob(uri.split(",")[1]), (letter) => letter.charCodeAt(0));

// the volume of a modality for the viewer, built from the mosaic; tiles show x from right to left, y from front to back
async function volume(content, name) {
  const picture = Object.assign(new Image(), { src: content.images[name] });
  await picture.decode();
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const colour = pen.getImageData(0, 0, picture.width, picture.height).data;
  const [X, Y, Z] = content.shape;
  const header = bytes(content.header);
  const file = new Uint8Array(header.length + X * Y * Z);
  file.set(header);
  let at = header.length;
  for (let z = 0; z < Z; z++) {
    const [left, top] = [(z % content.columns) * X, Math.floor(z / content.columns) * Y];
    for (let y = 0; y < Y; y++) {
      const line = (top + Y - 1 - y) * picture.width + left + X - 1;
      for (let x = 0; x < X; x++) file[at++] = colour[4 * (line - x)];
    }
  }
  return niivue.NVImage.new(file.buffer, name + ".nii", "gray", 1);
}

async function labels(content, kind) {
  const image = await niivue.NVImage.new(bytes(content.labels[kind]).buffer, kind + ".nii.gz", "", 0.6);
  const colours = ["#000000", ...Object.values(content.colours)];
  const part = (start) => colours.map((colour) => parseInt(colour.slice(start, start + 2), 16));
  image.setColormapLabel({ R: part(1), G: part(3), B: part(5), A: colours.map((_, value) => 255 * (value > 0)),
    I: colours.map((_, value) => value), labels: ["", ...Object.keys(content.colours)] });
  return image;
}

async function uncertainty(content) {
  const image = await niivue.NVImage.new(bytes(content.uncertainty).buffer, "uncertainty.nii.gz", "warm", 0.8);
  return Object.assign(image, { cal_min: 26, cal_max: 255 }); // below a tenth of a bit it is not shown
}

let closeViewer = () => {};

// one viewer at a time: a browser allows 16 WebGL contexts, and a viewer needs two
async function showViewer(root, content) {
  closeViewer();
  const viewer = root.querySelector(".viewer");
  const pristine = viewer.cloneNode(true);
  const [scan, map] = [".scan", ".map"].map((name) => root.querySelector(name));
  for (const element of root.querySelectorAll(".viewer [hidden]")) element.hidden = false;
  root.querySelector(".open").hidden = true;
  const engines = [];
  closeViewer = () => {
    for (const engine of engines) engine.gl.getExtension("WEBGL_lose_context").loseContext();
    viewer.replaceWith(pristine);
    root.querySelector(".open").hidden = false;
    delete root.dataset.ready;
  };
  if (!window.niivue) await load("cases/niivue.js");
  for (const name of Object.keys(content.images)) scan.add(new Option(name));
  scan.value = "T1ce" in content.images ? "T1ce" : scan.options[0].value;
  const doubts = content.uncertainty ? ["uncertainty"] : [];
  for (const name of [...Object.keys(content.labels).reverse(), ...doubts, "none"]) map.add(new Option(name));
  const options = { isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false, backColor: [0, 0, 0, 1],
    fontColor: [1, 1, 1, 1], crosshairColor: [1, 1, 1, 0.5], crosshairWidth: 0.5, showLegend: false, logLevel: "error" };
  const slices = new niivue.Niivue({ ...options, multiplanarLayout: innerWidth < 700 ? 2 : 3, showAllOrientationMarkers: true, multiplanarShowRender: 0 });
  const solid = new niivue.Niivue({ ...options, show3Dcrosshair: false, isOrientCube: true });
  await slices.attachToCanvas(root.querySelector(".slices canvas"));
  await solid.attachToCanvas(root.querySelector(".solid canvas"));
  engines.push(slices, solid);
  slices.setSliceType(slices.sliceTypeMultiplanar);
  solid.setSliceType(solid.sliceTypeRender);
  async function add(kind, name, colour, opacity) {
    if (!(name in content.surfaces[kind])) return; // empty
    const rgba = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16)).concat(255);
    const buffer = bytes(content.surfaces[kind][name]).buffer;
    solid.addMesh(await niivue.NVMesh.readMesh(buffer, name + ".mz3", solid.gl, opacity, new Uint8Array(rgba)));
  }
  async function draw() {
    for (const image of [...slices.volumes]) slices.removeVolume(image);
    for (const mesh of [...solid.meshes]) solid.removeMesh(mesh);
    slices.addVolume(await volume(content, scan.value));
    if (map.value == "uncertainty") slices.addVolume(await uncertainty(content));
    else if (map.value != "none") {
      slices.addVolume(await labels(content, map.value));
      const inwards = Object.entries(content.colours);
      for (const [number, [name, colour]] of inwards.reverse().entries()) await add(map.value, name, colour, number ? 0.4 : 1);
    }
    await add("head", "head", "#ffffff", 0.25); // last: a translucent surface must be drawn after those inside it
  }
  await draw();
  slices.scene.crosshairPos = content.centre.map((index, axis) => (index + 0.5) / content.shape[axis]);
  slices.drawScene();
  scan.onchange = map.onchange = draw;
  root.dataset.ready = "true";
}

function open(details) {
  const root = details.querySelector(".content");
  if (root.childElementCount) return;
  root.append(document.getElementById("slides").content.cloneNode(true));
  waiting[details.dataset.case] = (content) => {
    details.shape = content.shape;
    showSlices(root, content);
    root.querySelector(".open").onclick = () => showViewer(root, content);
  };
  load(details.dataset.file).catch((error) => { root.textContent = error.message; });
}

function follow() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches(".case")) {
    target.open = true;
    target.scrollIntoView();
  }
}

for (const details of document.querySelectorAll(".case")) {
  details.addEventListener("toggle", () => details.open && open(details));
}
addEventListener("hashchange", follow);
follow();
