import i18next from "i18next";
import LanguageDetector from "i18next-browser-languagedetector";
import { initReactI18next } from "react-i18next";

import { visible } from "../format";
import { en } from "./en";
import { zh } from "./zh";

export const languages = { zh: "中文", en: "English" } as const;

export type Language = keyof typeof languages;

/** The language of the page that is nearest to the one that was asked for. */
export function languageOf(tag: string): Language {
  return tag.startsWith("zh") ? "zh" : "en";
}

// Before init(), which tells the first language.
i18next.on("languageChanged", (language) => {
  document.documentElement.lang = languageOf(language) === "zh" ? "zh-CN" : "en";
});

void i18next
  .use(LanguageDetector)
  .use(initReactI18next)
  .init({
    resources: { en: { translation: en }, zh: { translation: zh } },
    fallbackLng: "en",
    supportedLngs: ["en", "zh"],
    nonExplicitSupportedLngs: true,
    interpolation: { escapeValue: true, escape: visible }, // React escapes what HTML would read
    detection: { order: ["localStorage", "navigator"], caches: ["localStorage"], lookupLocalStorage: "contenthub-language" },
  });

export { i18next };
