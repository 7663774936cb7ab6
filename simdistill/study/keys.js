// Optional keyboard shortcuts: 1 and 2 choose an image, 0 a tie. The buttons do the same without this script.
"use strict";

document.documentElement.classList.add("keys");

const positions = { 1: "left", 2: "right", 0: "tie" };

document.addEventListener("keydown", (event) => {
  const choice = positions[event.key];
  if (!choice || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const button = document.querySelector(`button[value="${choice}"]`);
  if (button) return button.click();
  const open = [...document.querySelectorAll("fieldset")].find((one) => !one.querySelector(":checked"));
  const radio = open && open.querySelector(`input[value="${choice}"]`);
  if (radio) {
    radio.checked = true;
    radio.focus();
  }
});
