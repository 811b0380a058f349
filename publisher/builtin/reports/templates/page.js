(() => {
  "use strict";
  const box = document.getElementById("find");
  const found = document.getElementById("found");
  const places = [...document.querySelectorAll("[data-find]")].map((place) => {
    const claim = place.closest(".claim");
    const about = claim ? claim.querySelector("header").textContent : "";
    return { place, words: `${about} ${place.textContent}`.toLowerCase() };
  });
  const search = () => {
    const asked = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let hits = 0;
    for (const { place, words } of places) {
      const hit = asked.every((word) => words.includes(word));
      place.classList.toggle("missed", !hit);
      hits += hit ? 1 : 0;
    }
    document.body.classList.toggle("searching", asked.length > 0);
    found.textContent = asked.length > 0 ? `${hits} of ${places.length} places` : "";
  };
  document.getElementById("finder").hidden = false;
  box.addEventListener("input", search);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
})();
