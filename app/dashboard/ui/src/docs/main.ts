/** `/docs`: the API's own description, with Swagger UI from this server. */
import "swagger-ui-dist/swagger-ui.css";

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";

/** Light or dark as the pages are: what was chosen there (Mantine keeps it under this name), or else the browser's. */
const chosen = localStorage.getItem("mantine-color-scheme-value");
const browsers = window.matchMedia("(prefers-color-scheme: dark)");

function paint() {
  const dark = chosen === "dark" || (chosen !== "light" && browsers.matches);
  document.documentElement.classList.toggle("dark-mode", dark); // Swagger UI's own name for it
}

paint();
browsers.addEventListener("change", paint);
SwaggerUI({ dom_id: "#docs", url: "/openapi.json", deepLinking: true });
