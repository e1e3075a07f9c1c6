/** JSON Schema validation for react-jsonschema-form without `eval`: its usual validator compiles code, which our
 * Content-Security-Policy forbids. */
import { Validator } from "@cfworker/json-schema";
import {
  createErrorHandler,
  findSchemaDefinition,
  toErrorList,
  toErrorSchema,
  unwrapErrorHandler,
  validationDataMerge,
  type CustomValidator,
  type ErrorTransformer,
  type FormContextType,
  type RJSFSchema,
  type RJSFValidationError,
  type UiSchema,
  type ValidationData,
  type ValidatorType,
} from "@rjsf/utils";

type Json = Record<string, unknown>;

/** The parts of a JSON Pointer in a URI fragment. */
function partsOf(pointer: string): string[] {
  const parts = pointer.split("/").slice(1);
  return parts.map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** What a schema says for a keyword, whose location has a `$ref` where one was followed. */
function at(schema: RJSFSchema, location: string): unknown {
  return partsOf(location).reduce<unknown>((part, name) => {
    const inner = (part as Json | undefined)?.[name];
    return name === "$ref" ? findSchemaDefinition(inner as string, schema) : inner;
  }, schema);
}

function run(schema: RJSFSchema, data: unknown): RJSFValidationError[] {
  // What is undefined is left out, and a large integer is rounded: the validator knows no bigint.
  // eslint-disable-next-line no-restricted-properties
  const plain = data === undefined ? undefined : (JSON.parse(JSON.stringify(data)) as unknown);
  const result = new Validator(schema as never, "2020-12", false).validate(plain ?? {});
  // A failure inside is told again by everything around it: the innermost says what is wrong.
  const around = new Set(["properties", "items", "allOf", "anyOf", "oneOf", "$ref", "additionalProperties"]);
  return result.errors
    .filter((error) => !around.has(error.keyword))
    .map((error) => {
      const missing = error.keyword === "required" ? /"([^"]+)"/.exec(error.error)?.[1] : undefined;
      const path = [...partsOf(error.instanceLocation), ...(missing === undefined ? [] : [missing])];
      const property = path.map((part) => `.${part}`).join("");
      return { name: error.keyword, params: { limit: at(schema, error.keywordLocation) }, property, message: error.error, stack: `${property} ${error.error}` };
    });
}

class PlainValidator implements ValidatorType<Json> {
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the interface has it
  rawValidation<Result = unknown>(schema: RJSFSchema, data?: Json) {
    return { errors: run(schema, data) as Result[] };
  }

  validateFormData(
    data: Json | undefined,
    schema: RJSFSchema,
    customValidate?: CustomValidator<Json>,
    transformErrors?: ErrorTransformer<Json>,
    uiSchema?: UiSchema<Json>,
  ): ValidationData<Json> {
    const found = run(schema, data);
    const errors = transformErrors ? transformErrors(found, uiSchema) : found;
    const result = { errors, errorSchema: toErrorSchema<Json>(errors) };
    if (customValidate === undefined || data === undefined) return result;
    const handler = customValidate(data, createErrorHandler<Json>(data), uiSchema);
    return validationDataMerge<Json>(result, unwrapErrorHandler<Json>(handler));
  }

  isValid(schema: RJSFSchema, data: Json | undefined): boolean {
    return run(schema, data).length === 0;
  }

  toErrorList = toErrorList;
}

export const validator: ValidatorType<Json, RJSFSchema, FormContextType> = new PlainValidator();
export default validator;
