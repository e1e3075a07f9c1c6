/** pydantic's JSON Schema, made easier on people. */
import type { RJSFSchema, UiSchema } from "@rjsf/utils";

type Schema = Record<string, unknown>;

const bounds = new Set(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]);

/** `anyOf: [X, null]`, which pydantic writes for an optional field, becomes X: a field that is left empty is left
 * out, so nobody has to choose between "option 1" and "option 2". */
export function friendly(schema: unknown): RJSFSchema {
  if (Array.isArray(schema)) return schema.map(friendly);
  if (typeof schema !== "object" || schema === null) return schema as RJSFSchema;
  const found = schema as Schema;
  const { anyOf, ...rest } = found;
  if (Array.isArray(anyOf)) {
    const real = (anyOf as Schema[]).filter((option) => option.type !== "null");
    if (real.length === 1 && real.length < anyOf.length) {
      const merged: Schema = { ...real[0], ...rest };
      if (merged.default === null) delete merged.default;
      return friendly(merged);
    }
  }
  // What is compared in a browser is rounded, so a bound of 64 bits would refuse its neighbours; the server knows better.
  const kept = Object.entries(found).filter(([key, value]) => !(typeof value === "bigint" && bounds.has(key)));
  return Object.fromEntries(kept.map(([key, value]) => [key, friendly(value)]));
}

/** What an input that is left empty stands for, in grey; and that an optional object is there once it is added, until
 * it is removed. */
export function defaultsShown(schema: RJSFSchema): UiSchema {
  const shown: UiSchema = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const hasParts = typeof property === "object" && (property.$ref !== undefined || property.properties !== undefined);
    if (hasParts && !schema.required?.includes(name)) shown[name] = { "ui:enableOptionalDataFieldForType": ["object"] };
    const value = typeof property === "object" ? property.default : undefined;
    if ((typeof value === "string" && value !== "") || typeof value === "number" || typeof value === "bigint") shown[name] = { "ui:placeholder": String(value) };
  }
  return shown;
}

/** Errors by dotted path, as the form takes them. */
export function extraErrors(fields: Record<string, string[]>, prefix: string): Schema {
  const root: Schema = {};
  for (const [path, messages] of Object.entries(fields)) {
    if (path !== prefix && !path.startsWith(`${prefix}.`)) continue;
    let node = root;
    for (const part of path.slice(prefix.length + 1).split(".").filter(Boolean)) {
      node = (node[part] ??= {}) as Schema;
    }
    node.__errors = messages;
  }
  return root;
}
