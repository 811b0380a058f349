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
    for (const { place, words } of places) {
      place.classList.toggle("missed", !asked.every((word) => words.includes(word)));
    }
    document.body.classList.toggle("searching", asked.length > 0);
    const shown = places.filter(({ place }) => place.getClientRects().length > 0).length;
    found.textContent = asked.length > 0 ? `${shown} of ${places.length} places` : "";
  };
  document.getElementById("finder").hidden = false;
  box.addEventListener("input", search);
  document.getElementById("open").addEventListener("change", search);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
})();
