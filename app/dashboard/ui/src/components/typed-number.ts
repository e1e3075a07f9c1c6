/** Numbers while they are typed: what has been typed stays as it is, or `-`, on its way to `-5`, would become 0. */

/** null and the empty text: nothing. */
export type Typed = number | string | null;

/** As the API takes it; null: nothing was typed. What is no number goes as it is, to be refused where it stands. */
export function numberOf(typed: Typed): number | string | null {
  if (typed === null || typeof typed === "number") return typed;
  const text = typed.trim();
  if (text === "") return null;
  const number = Number(text);
  return Number.isFinite(number) ? number : text;
}
