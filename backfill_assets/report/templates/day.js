"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const LENGTHS = { "1m": 60, "5m": 300, "1h": 3600 };
  const charts = [];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const two = (n) => String(n).padStart(2, "0");

  const dress = (entry) => {
    const { chart, candles, volume, shown } = entry;
    chart.applyOptions({
      layout: { background: { type: "solid", color: color("--card") }, textColor: color("--muted"), fontFamily: "inherit" },
      grid: { vertLines: { color: color("--line") }, horzLines: { color: color("--line") } },
      timeScale: { borderColor: color("--line") },
      rightPriceScale: { borderColor: color("--line") },
    });
    // Rising candles are hollow and falling ones filled, so that color is not the only difference.
    candles.applyOptions({
      upColor: color("--card"), borderUpColor: color("--up"), wickUpColor: color("--up"),
      downColor: color("--down"), borderDownColor: color("--down"), wickDownColor: color("--down"),
    });
    // An unknown volume has no bar.
    volume.setData(shown().filter((candle) => candle[5] !== null).map(([time, open, , , close, amount]) =>
      ({ time, value: amount, color: color(close >= open ? "--up-soft" : "--down-soft") })));
  };

  const addChart = (details, feed) => {
    const box = details.querySelector(".chart");
    const frames = Object.keys(feed.candles);
    if (!box || !frames.length) return;
    const chart = LightweightCharts.createChart(box, {
      autoSize: true,
      handleScroll: { mouseWheel: false, vertTouchDrag: false },
      handleScale: { mouseWheel: false },
      timeScale: { timeVisible: true, secondsVisible: false, minBarSpacing: 0.1 },
      localization: { locale: "en-GB" },
    });
    const format = { type: "price", precision: feed.decimals, minMove: 10 ** -feed.decimals };
    const candles = chart.addSeries(LightweightCharts.CandlestickSeries, { priceFormat: format });
    const volume = chart.addSeries(LightweightCharts.HistogramSeries, {
      priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    const spikes = LightweightCharts.createSeriesMarkers(candles, []);
    candles.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.26 } });
    chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
    const group = details.querySelector(".frames");
    let frame = frames[0];
    const fit = () => chart.timeScale().fitContent();
    chart.timeScale().subscribeSizeChange(fit);
    const entry = { chart, candles, volume, shown: () => feed.candles[frame] };
    const show = (name) => {
      frame = name;
      const rows = new Map(feed.candles[name].map((row) => [row[0], row]));
      const points = [];
      // A bucket without trades has no candle but keeps its place on the axis.
      for (let time = data.start; time < data.start + 86400; time += LENGTHS[name]) {
        const row = rows.get(time);
        points.push(row ? { time, open: row[1], high: row[2], low: row[3], close: row[4] } : { time });
      }
      candles.setData(points);
      const buckets = new Set(feed.flagged.map((m) => Math.floor(m * 60 / LENGTHS[name])));
      spikes.setMarkers([...buckets].sort((a, b) => a - b).map((bucket) => ({
        time: data.start + bucket * LENGTHS[name], position: "aboveBar", shape: "arrowDown",
        color: color("--warn"), text: "spike?",
      })));
      box.dataset.spikes = buckets.size;
      dress(entry);
      fit();
      for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.frame === name));
    };
    group.hidden = false;
    group.addEventListener("click", (event) => event.target.dataset.frame && show(event.target.dataset.frame));
    charts.push(entry);
    show(frames.includes("5m") ? "5m" : frames[0]);
    box.dataset.ready = "true";
  };

  // "t12e3" is twelve minutes of t and three of e; an omitted count of trades is 0.
  const expand = (runs) => runs.replace(/([a-z])(\d+)/g, (_, letter, length) => letter.repeat(Number(length)));
  const unpack = (packed) => {
    const trades = packed.trades.split(",").map(Number);
    const most = Math.log1p(Math.max(...trades)) || 1;
    const levels = trades.map((n) => n ? Math.min(data.levels, 1 + Math.floor(data.levels * Math.log1p(n) / most)) : 0);
    return { states: expand(packed.states), trades, levels, flagged: new Set(packed.flagged) };
  };

  const addGrid = (details, packed) => {
    const box = details.querySelector(".grid-box");
    if (!box || !packed.states) return;
    const feed = unpack(packed);
    const grid = box.querySelector(".grid");
    const readout = box.querySelector(".readout");
    const words = (i) => {
      const trades = feed.trades[i] ? `, ${feed.trades[i].toLocaleString("en")} ${feed.trades[i] === 1 ? "trade" : "trades"}` : "";
      const spike = feed.flagged.has(i) ? ", an unconfirmed spike is its high or low" : "";
      return `${two(Math.floor(i / 60))}:${two(i % 60)} ${data.states[feed.states[i]][0]}${trades}${spike}`;
    };
    const cells = [];
    const rows = document.createDocumentFragment();
    for (let hour = 0; hour < 24; hour++) {
      const row = document.createElement("div");
      row.setAttribute("role", "row");
      const head = document.createElement("span");
      head.setAttribute("role", "rowheader");
      head.textContent = two(hour);
      row.append(head);
      for (let minute = 0; minute < 60; minute++) {
        const i = hour * 60 + minute;
        const cell = document.createElement("span");
        const state = feed.states[i];
        cell.setAttribute("role", "gridcell");
        cell.className = state === "t" ? `s-t l-${feed.levels[i]}` : `s-${state}`;
        cell.dataset.i = i;
        cell.tabIndex = i ? -1 : 0;
        cell.setAttribute("aria-label", words(i));
        cell.textContent = feed.flagged.has(i) ? "▲" : data.states[state][1];
        cells.push(cell);
        row.append(cell);
      }
      rows.append(row);
    }
    grid.append(rows);
    box.hidden = false;
    const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -60, ArrowDown: 60 };
    let current = 0;
    const go = (i) => {
      cells[current].tabIndex = -1;
      current = i;
      cells[i].tabIndex = 0;
      cells[i].focus();
    };
    grid.addEventListener("keydown", (event) => {
      let next = null;
      if (event.key in STEPS) next = current + STEPS[event.key];
      else if (event.key === "Home") next = current - (current % 60);
      else if (event.key === "End") next = current - (current % 60) + 59;
      if (next === null) return;
      event.preventDefault();
      if (next >= 0 && next < cells.length) go(next);
    });
    grid.addEventListener("focusin", (event) => { if (event.target.dataset.i) readout.textContent = words(Number(event.target.dataset.i)); });
    grid.addEventListener("pointerover", (event) => { if (event.target.dataset.i) readout.textContent = words(Number(event.target.dataset.i)); });
    grid.addEventListener("click", (event) => { if (event.target.dataset.i) go(Number(event.target.dataset.i)); });
  };

  const fill = (details) => {
    if (!details.open || details.dataset.filled) return;
    details.dataset.filled = "true";
    const feed = data.feeds[Number(details.dataset.index)];
    addChart(details, feed);
    addGrid(details, feed);
  };

  const all = document.querySelectorAll("details.feed");
  for (const details of all) {
    details.addEventListener("toggle", () => fill(details));
    fill(details);
  }
  const follow = () => {
    const target = /^#feed-\d+$/.test(location.hash) && document.querySelector(location.hash);
    if (!target) return;
    target.open = true;
    fill(target);
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  follow();
  document.addEventListener("themechange", () => charts.forEach(dress));
})();
