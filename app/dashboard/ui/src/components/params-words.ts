/** What rjsf and the validator say, in the language of the page. */
import { englishStringTranslator, TranslatableString, type RJSFSchema, type RJSFValidationError } from "@rjsf/utils";
import type { TFunction } from "i18next";

import { jsonOf } from "../json";

const kinds = ["string", "integer", "number", "boolean", "array", "object", "null"] as const;
type Kind = (typeof kinds)[number];

const isKind = (type: unknown): type is Kind => kinds.includes(type as Kind);
const said = (value: unknown) => (typeof value === "string" ? value : (jsonOf(value) ?? ""));

function kindText(t: TFunction, type: unknown): string {
  return [type].flat().map((one) => (isKind(one) ? t(`kind.${one}`) : said(one))).join(" / ");
}

/** What one of several schemas for a field is for. */
function optionText(t: TFunction, { title, const: only, enum: some, type, format, items }: RJSFSchema): string {
  if (title !== undefined) return title;
  const values = only === undefined ? some : [only];
  if (values !== undefined) return values.map(said).join(" / ");
  if (format === "date-time") return t("kind.moment");
  if (type === "array" && typeof items === "object" && !Array.isArray(items)) return t("kind.listOf", { of: optionText(t, items) });
  return type === undefined ? t("kind.any") : kindText(t, type);
}

export function optionTexts(t: TFunction, options: RJSFSchema[]): string[] {
  const texts = options.map((option) => optionText(t, option));
  return texts.map((text, index) => (texts.filter((other) => other === text).length > 1 ? `${text} (${index + 1})` : text));
}

const counted = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] as const;
const limited = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"] as const;
const plain = ["required", "uniqueItems", "false"] as const;

const among = <T extends string>(names: readonly T[], name: string | undefined): name is T => (names as readonly (string | undefined)[]).includes(name);

/** An error of the validator, which knows its keyword and what the schema says for that. */
export function errorText(t: TFunction, { name, params }: RJSFValidationError): string {
  const limit = (params as { limit?: unknown } | undefined)?.limit;
  if (among(counted, name)) return t(`invalid.${name}`, { count: Number(limit) });
  if (among(limited, name)) return t(`invalid.${name}`, { limit: said(limit) });
  if (among(plain, name)) return t(`invalid.${name}`);
  if (name === "type") return t("invalid.type", { kind: kindText(t, limit) });
  if (name === "const" || name === "enum") return t("invalid.enum", { values: [limit].flat().map(said).join(", ") });
  return t("invalid.other");
}

const words = {
  [TranslatableString.AddButton]: "add",
  [TranslatableString.AddItemButton]: "add",
  [TranslatableString.ArrayItemTitle]: "item",
  [TranslatableString.MoveDownButton]: "down",
  [TranslatableString.MoveUpButton]: "up",
  [TranslatableString.RemoveButton]: "remove",
  [TranslatableString.OptionalObjectAdd]: "add",
  [TranslatableString.OptionalObjectRemove]: "remove",
  [TranslatableString.KeyLabel]: "key",
  [TranslatableString.DeprecatedLabel]: "deprecated",
  [TranslatableString.NewStringDefault]: "newValue",
  [TranslatableString.YesLabel]: "yes",
  [TranslatableString.NoLabel]: "no",
} as const;

/** The words around the inputs; of what is wrong with a schema its author is told in English. */
export function wordOf(t: TFunction, word: TranslatableString, [name = ""]: string[] = []): string {
  return word in words ? t(`fields.${words[word as keyof typeof words]}`, { name }) : englishStringTranslator(word, [name]);
}
