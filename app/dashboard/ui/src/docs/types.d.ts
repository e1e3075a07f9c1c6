declare module "swagger-ui-dist/swagger-ui-es-bundle.js" {
  /** The options are in Swagger UI's documentation, under "Configuration". */
  export default function SwaggerUI(options: { dom_id: string; url: string; deepLinking: boolean }): void;
}
