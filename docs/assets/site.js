// Tables that are wider than the page scroll sideways, by keyboard too.
function reachable() {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) {
    const scrolls = wrap.scrollWidth > wrap.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "Table, scrolls sideways"]]) {
      if (scrolls) wrap.setAttribute(name, value);
      else wrap.removeAttribute(name);
    }
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
document$.subscribe(() => setTimeout(reachable));
