// Sets the theme chosen last, before anything is drawn. A classic script, since modules run too late.
"use strict";
try {
  const theme = localStorage.getItem("mqi-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden: use the system's theme.
}
