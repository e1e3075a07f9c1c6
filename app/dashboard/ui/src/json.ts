/** JSON as the server means it: its integers have 64 bits and more, of which a JavaScript number holds 53. */
import { isInteger, parse, stringify } from "lossless-json";

declare global {
  interface BigInt {
    toJSON(): unknown;
  }
  interface JSON {
    rawJSON?(text: string): unknown;
  }
}

/** For libraries that make JSON by themselves, to compare or to check; browsers of before 2025 round there. */
BigInt.prototype.toJSON = function () {
  return JSON.rawJSON?.(this.toString()) ?? Number(this);
};

/** A number, or a bigint where a number would be another one. */
export function integerOf(text: string): number | bigint {
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text);
}

/** Raises `SyntaxError`. */
export function parseJson(text: string): unknown {
  return parse(text, null, (number) => (isInteger(number) ? integerOf(number) : Number(number)));
}

/** undefined for what JSON has no word for. */
export function jsonOf(value: unknown, indent?: number): string | undefined {
  return stringify(value, null, indent);
}
