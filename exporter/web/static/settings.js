// What the server tells the page about words, links and the clock.

export const settings = JSON.parse(document.querySelector("meta[name=mqi-settings]").content);
