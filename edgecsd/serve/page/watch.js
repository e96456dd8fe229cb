// For browsers that cannot run the page's modules: says so. An ordinary script, older than anything it watches over.
addEventListener("error", function (event) {
  if (event.target !== window && event.target.tagName !== "SCRIPT") return;
  var what = event.message || event.target.src + " could not be loaded";
  document.getElementById("problem-title").textContent = "This browser could not run the page";
  document.getElementById("problem-text").textContent =
    what + ". Reload it; if that does not help: Chrome 100, Safari 16.4, Firefox 108 and later can.";
  document.getElementById("problem").hidden = false;
}, true);
