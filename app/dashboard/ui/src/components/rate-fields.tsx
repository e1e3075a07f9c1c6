import { NumberInput, TextInput } from "@mantine/core";
import { useTranslation } from "react-i18next";

import type { Schemas, Task } from "../api/client";

/** A rate limit as it is typed; without a limit there is none. */
export interface RateDraft {
  limit: number | null;
  per_seconds: number | null;
  burst: number | null;
  key: string;
}

export const unlimited: RateDraft = { limit: null, per_seconds: null, burst: null, key: "" };

export function rateDraftOf({ rate_limit }: Task): RateDraft {
  return rate_limit == null ? unlimited : { limit: rate_limit.limit, per_seconds: rate_limit.per_seconds, burst: rate_limit.burst ?? null, key: rate_limit.key ?? "" };
}

/** The draft as the API takes it; null: no limit. */
export function rateLimitOf({ limit, per_seconds, burst, key }: RateDraft): Schemas["RateLimit"] | null {
  return limit === null ? null : { limit, per_seconds: per_seconds ?? 1, burst, key: key.trim() || null };
}

interface Props {
  draft: RateDraft;
  onChange: (changes: Partial<RateDraft>) => void;
  errors: Record<string, string>;
}

export function RateFields({ draft, onChange, errors }: Props) {
  const { t } = useTranslation();
  const number = (field: "limit" | "per_seconds" | "burst") => ({
    value: draft[field] ?? "",
    onChange: (value: string | number) => onChange({ [field]: value === "" ? null : Number(value) }),
    error: errors[`rate_limit.${field}`],
    disabled: field !== "limit" && draft.limit === null,
  });
  return (
    <>
      <NumberInput label={t("rate.limit")} {...number("limit")} error={errors["rate_limit.limit"] ?? errors.rate_limit} />
      <NumberInput label={t("rate.perSeconds")} placeholder="1" {...number("per_seconds")} />
      <NumberInput label={t("rate.burst")} {...number("burst")} />
      <TextInput label={t("rate.key")} value={draft.key} onChange={(event) => onChange({ key: event.currentTarget.value })} error={errors["rate_limit.key"]} disabled={draft.limit === null} />
    </>
  );
}
