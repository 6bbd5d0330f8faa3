"use strict";
// Draws the plots of the page from the data beside them, and loads a page of a running reconstruction again.
(() => {
  // Named one by one: among plotly's own choice is a button that sends the data to a server.
  const configOf = (...buttons) => ({ responsive: true, displaylogo: false, modeBarButtons: [buttons] });
  const dataOf = (element) => JSON.parse(document.getElementById(element.dataset.from).textContent);
  let lastTouched = -Infinity;

  // What the reader has set is kept over a reload. Some browsers keep nothing for a page from a file.
  const kept = (key, value) => {
    try {
      const name = `hoarfrost ${location.pathname} ${key}`;
      if (value === undefined) return JSON.parse(sessionStorage.getItem(name));
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      // Then the next page begins anew.
    }
    return null;
  };

  // The map comes as 16-bit numbers, in steps of so many standard deviations, x fastest.
  const grid = (surface) => {
    const bytes = Uint8Array.from(atob(surface.values), (c) => c.charCodeAt(0));
    const value = Float32Array.from(new Int16Array(bytes.buffer), (v) => v * surface.step);
    const n = surface.n;
    const [x, y, z] = [0, 1, 2].map(() => new Float32Array(n ** 3));
    for (let i = 0; i < n ** 3; i++) {
      x[i] = ((i % n) - n / 2) * surface.voxel_A;
      y[i] = ((Math.floor(i / n) % n) - n / 2) * surface.voxel_A;
      z[i] = (Math.floor(i / n ** 2) - n / 2) * surface.voxel_A;
    }
    return { x, y, z, value };
  };

  const drawSurface = async (element) => {
    const surface = dataOf(element);
    const number = element.dataset.from.slice("data".length);
    const still = document.getElementById(`still${number}`);
    const slider = document.getElementById(`level${number}`);
    const shown = slider.parentElement.querySelector("output");
    const level = Math.min(Math.max(kept(`level${number}`) ?? surface.level, surface.lowest), surface.highest);
    const axis = (name) => ({
      title: { text: `${name}, Å` }, showbackground: false, showspikes: false,
      gridcolor: "#dddddd", zerolinecolor: "#bbbbbb", linecolor: "#bbbbbb",
    });
    // The light is fixed to the map; from behind the viewer's shoulder it shows what is turned towards them. It is right
    // in perspective only.
    const lightFrom = ({ eye, up }) => ({
      x: 1000 * (eye.x + 0.4 * (up?.x ?? 0)), y: 1000 * (eye.y + 0.4 * (up?.y ?? 0)), z: 1000 * (eye.z + 0.4 * (up?.z ?? 1)),
    });
    const away = element.clientWidth < 500 ? 1.65 : 1.35; // so far that the axes' titles are in sight
    const camera = kept(`camera${number}`) ?? { eye: { x: away, y: away, z: 0.7 * away } };
    const colour = [[0, "#7fb0e6"], [1, "#7fb0e6"]];
    const trace = {
      type: "isosurface", ...grid(surface), isomin: level, isomax: level, surface: { count: 1 },
      caps: { x: { show: false }, y: { show: false }, z: { show: false } }, colorscale: colour, showscale: false,
      lighting: { ambient: 0.4, diffuse: 0.65, specular: 0.1, roughness: 0.5, fresnel: 0.05 },
      lightposition: lightFrom(camera), hoverinfo: "skip",
    };
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, uirevision: "kept",
      scene: { xaxis: axis("x"), yaxis: axis("y"), zaxis: axis("z"), aspectmode: "cube", dragmode: "orbit", camera },
    };
    await Plotly.newPlot(element, [trace], layout, configOf("resetCameraDefault3d"));
    if (element.querySelector(".no-webgl") !== null) {
      Plotly.purge(element);
      element.hidden = true;
      still.querySelector("figcaption").textContent = "A still picture: this browser shows no WebGL, so it does not turn";
      return;
    }
    still.hidden = true;
    element.on("plotly_relayout", () => {
      lastTouched = performance.now();
      kept(`camera${number}`, element.layout.scene.camera);
      Plotly.restyle(element, { lightposition: [lightFrom(element.layout.scene.camera)] });
    });
    const say = () => { shown.textContent = `${Number(slider.value).toFixed(1)} σ`; };
    Object.assign(slider, { min: surface.lowest, max: surface.highest, step: "any", value: level });
    slider.parentElement.hidden = false;
    say();
    slider.addEventListener("input", say);
    slider.addEventListener("change", () => {
      lastTouched = performance.now();
      kept(`level${number}`, Number(slider.value));
      Plotly.restyle(element, { isomin: Number(slider.value), isomax: Number(slider.value) });
    });
  };

  const reloadLater = (seconds) => {
    const line = document.createElement("p");
    line.id = "reload";
    const box = Object.assign(document.createElement("input"), { type: "checkbox", id: "reloads" });
    const label = Object.assign(document.createElement("label"), { htmlFor: "reloads" });
    label.textContent = ` The run is going on: load this page again every ${seconds} seconds`;
    box.checked = kept("reloads") ?? true;
    box.addEventListener("change", () => kept("reloads", box.checked));
    line.append(box, label);
    document.body.append(line);
    for (const kind of ["pointerdown", "wheel", "keydown"]) {
      addEventListener(kind, () => { lastTouched = performance.now(); }, { passive: true });
    }
    setInterval(() => {
      const now = performance.now();
      const isRead = document.visibilityState === "visible";
      if (box.checked && isRead && Math.min(now, now - lastTouched) > 1000 * seconds) location.reload();
    }, 1000);
  };

  const drawPlot = (element) => {
    const figure = dataOf(element);
    return Plotly.newPlot(element, figure.data, figure.layout, configOf("zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"));
  };

  if (document.body.dataset.reloadS) reloadLater(Number(document.body.dataset.reloadS));
  (async () => {
    for (const element of document.querySelectorAll(".plot")) await drawPlot(element);
    for (const element of document.querySelectorAll(".surface")) await drawSurface(element);
    document.body.dataset.drawn = "yes";
  })();
})();
