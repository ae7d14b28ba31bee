// Before anything is drawn: the theme that was chosen here last. A classic script, since modules run too late.
"use strict";
try {
  const theme = localStorage.getItem("mqi-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden: then the theme is the system's.
}
