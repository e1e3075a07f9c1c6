/** Numbers and moments as people read them, in the language of the page and the zone of the browser. */
import { jsonOf } from "./json";

export const browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The zone itself, or UTC where this browser has no such zone: its tables are not the server's. */
export function knownZone(zone: string): string {
  try {
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return zone;
  } catch {
    return "UTC";
  }
}

const steps: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

export function relative(moment: number, now: number, language: string): string {
  const seconds = (moment - now) / 1000;
  const [unit, size] = steps.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  return format.format(Math.trunc(seconds / size), unit);
}

/** The zone's distance from UTC at that moment, as in GMT+8. */
export function offsetOf(moment: number | string, zone: string): string {
  const parts = new Intl.DateTimeFormat("en", { timeZone: knownZone(zone), timeZoneName: "shortOffset" }).formatToParts(new Date(moment));
  return parts.find((part) => part.type === "timeZoneName")?.value ?? "";
}

export function absolute(moment: number | string, language: string, zone?: string, withOffset = true): string {
  const time = new Intl.DateTimeFormat(language, {
    year: "numeric",
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
    timeZone: zone && knownZone(zone),
  }).format(new Date(moment));
  // Intl would put it between date and time in Chinese.
  return withOffset ? `${time} ${offsetOf(moment, zone ?? browserZone)}` : time;
}

/** What a clock in that zone shows at a moment: `YYYY-MM-DD HH:mm:ss`. */
export function wallTime(moment: number | string, zone = browserZone): string {
  // Sweden writes dates as ISO 8601 does.
  return new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "medium", timeZone: zone }).format(new Date(moment));
}

export function clock(moment: number | string, language: string): string {
  return new Intl.DateTimeFormat(language, {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  }).format(new Date(moment));
}

/** 0.0042 → 4.2 ms, 75 → 1 m 15 s. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.0001) return "< 0.1 ms";
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const parts: [number, string][] = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "m"],
    [1, "s"],
  ];
  let rest = Math.round(seconds);
  const said: string[] = [];
  for (const [size, unit] of parts) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0 && said.length < 2) said.push(`${amount} ${unit}`);
  }
  return said.join(" ");
}

export function percent(share: number | null | undefined, language: string): string {
  if (share == null) return "–";
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: share > 0.99 && share < 1 ? 2 : 1 }).format(share);
}

export function count(value: number, language: string): string {
  return new Intl.NumberFormat(language).format(value);
}

/** Text by others: characters that turn the direction of writing, and with it what stands around them, are shown as their codes. */
export function visible(text: string): string {
  return text.replace(/[\u202a-\u202e\u2066-\u2069]/g, (turn) => `\\u${turn.charCodeAt(0).toString(16)}`);
}

export function json(value: unknown): string {
  return jsonOf(value, 2) ?? "";
}
