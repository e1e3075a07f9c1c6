import "dayjs/locale/zh-cn";

import { languageOf } from "../i18n";

/** The language of the page as dayjs calls it, which names the months of calendars. */
export function calendarLocale(tag: string): string {
  return languageOf(tag) === "zh" ? "zh-cn" : "en";
}
