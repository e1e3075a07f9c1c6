import { ariaDescribedByIds, labelValue, type WidgetProps } from "@rjsf/utils";
import { useTranslation } from "react-i18next";

import { browserZone } from "../format";
import { MomentPicker } from "./moment-picker";

/** `format: date-time` in a form of params; rjsf's own forgets the time of day and writes no offset. */
export function MomentWidget({ id, label, hideLabel, value, required, disabled, readonly, schema, options, rawErrors = [], onChange, onBlur }: WidgetProps) {
  const { t } = useTranslation();
  const stored = value as string | undefined;
  const isMoment = stored !== undefined && !Number.isNaN(Date.parse(stored));
  return (
    <MomentPicker
      id={id}
      aria-describedby={ariaDescribedByIds(id)}
      label={labelValue(label, hideLabel, false)}
      description={[hideLabel ? undefined : (options.description ?? schema.description), t("form.yourTime", { zone: browserZone })].filter(Boolean).join(" ")}
      // What is stored and is no moment stays in sight, and stays stored until another is chosen.
      value={isMoment ? stored : null}
      placeholder={stored}
      onChange={(moment) => onChange(moment ?? options.emptyValue)}
      onBlur={() => onBlur(id, stored)}
      required={required}
      clearable={!required}
      disabled={disabled === true || readonly === true}
      error={rawErrors.length > 0 ? rawErrors.join("\n") : undefined}
    />
  );
}
