/** `/docs`: the API's own description, with Swagger UI from this server. */
import "swagger-ui-dist/swagger-ui.css";

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";

SwaggerUI({ dom_id: "#docs", url: "/openapi.json", deepLinking: true });
