"use strict";
// Draws the plots in data.charts as SVG: lines, points and bars on linear or logarithmic axes.
const drawChart = (() => {
  const W = 480, H = 280, LEFT = 62, RIGHT = 14, TOP = 12, BOTTOM = 46;
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const label = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(0).replace("e+", "e") : String(Number(value.toPrecision(3)));
  };

  // Position on an axis from 0 to 1, and its ticks: powers of ten where there are enough, else round numbers.
  function axis(values, log) {
    let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const map = log ? Math.log10 : (value) => value;
    if (!log) { low = Math.min(low, 0); high = Math.max(high, 0); }
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    const start = map(low), span = map(high) - map(low);
    const ticks = [];
    if (log && span >= 1.5) {
      const step = Math.ceil(span / 6);
      for (let power = Math.ceil(start - 1e-9); power <= start + span + 1e-9; power += step) ticks.push(10 ** power);
    } else {
      const rough = (high - low) / 5, ten = 10 ** Math.floor(Math.log10(rough));
      const step = ten * [1, 2, 5, 10].find((factor) => factor * ten >= rough);
      for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i += 1) ticks.push(i * step);
    }
    return { at: (value) => (map(value) - start) / span, ticks };
  }

  return (plot) => {
    const all = (name) => plot.series.flatMap((one) => one[name]);
    const bars = plot.series.some((one) => one.kind === "bars");
    const heights = bars && plot.log_y ? [0.5, ...all("y").filter((value) => value > 0)] : all("y"); // a bar of 1 is seen
    const xs = axis(all("x"), plot.log_x), ys = axis(heights, plot.log_y);
    const x = (value) => LEFT + xs.at(value) * (W - LEFT - RIGHT), y = (value) => H - BOTTOM - ys.at(value) * (H - TOP - BOTTOM);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${plot.title}: ${plot.y_label} against ${plot.x_label}` });
    for (const tick of ys.ticks) {
      picture.append(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick) }));
      picture.append(svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, label(tick)));
    }
    for (const tick of xs.ticks) picture.append(svg("text", { x: x(tick), y: H - BOTTOM + 16, "text-anchor": "middle" }, label(tick)));
    picture.append(svg("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }));
    picture.append(svg("text", { x: (LEFT + W - RIGHT) / 2, y: H - 8, "text-anchor": "middle" }, plot.x_label));
    picture.append(svg("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${(TOP + H - BOTTOM) / 2}) rotate(-90)` }, plot.y_label));
    plot.series.forEach((one, number) => {
      const style = { class: `series${number % 2}` };
      const say = (element, text) => { element.append(svg("title", {}, text)); picture.append(element); };
      if (one.kind === "bars") {
        one.y.forEach((height, i) => {
          if (!height) return;
          const left = x(one.x[i]), right = x(one.x[i + 1]);
          say(svg("rect", { ...style, x: left, width: Math.max(right - left - 1, 1), y: y(height), height: H - BOTTOM - y(height) }),
            `${height} ${plot.y_label}: ${label(one.x[i])} to ${label(one.x[i + 1])}`);
        });
        return;
      }
      if (one.kind === "line" && one.x.length > 1) {
        picture.append(svg("polyline", { ...style, points: one.x.map((value, i) => `${x(value).toFixed(1)},${y(one.y[i]).toFixed(1)}`).join(" ") }));
      }
      if (one.kind === "points" || one.x.length <= 60) {
        one.x.forEach((value, i) => say(svg("circle", { ...style, cx: x(value), cy: y(one.y[i]), r: one.kind === "points" ? 5 : 2.5 }),
          `${one.name}: ${label(value)}, ${label(one.y[i])}`));
      }
    });
    const box = document.createElement("figure");
    box.className = "chart";
    const caption = document.createElement("figcaption");
    caption.append(plot.title);
    if (plot.series.length > 1) {
      plot.series.forEach((one, number) => {
        const key = document.createElement("span");
        key.className = `key series${number % 2}`;
        key.textContent = one.name;
        caption.append(" ", key);
      });
    }
    box.append(caption, picture);
    return box;
  };
})();
