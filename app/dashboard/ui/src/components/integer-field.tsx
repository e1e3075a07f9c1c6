import { NumberInput } from "@mantine/core";
import { getDefaultRegistry } from "@rjsf/core";
import { ariaDescribedByIds, labelValue, type FieldProps, type WidgetProps } from "@rjsf/utils";
import type { ComponentType } from "react";

import { integerOf } from "../json";

const { NumberField, StringField } = getDefaultRegistry().fields as Record<"NumberField" | "StringField", ComponentType<FieldProps>>;

/** rjsf's own makes every text a double, and so another number of a large integer. */
export function ExactNumberField(props: FieldProps) {
  const { schema, uiSchema, registry } = props;
  if (schema.type !== "integer" || registry.schemaUtils.isSelect(schema)) return <NumberField {...props} />;
  return <StringField {...props} uiSchema={{ ...uiSchema, "ui:widget": IntegerWidget }} />;
}

/** Of a large integer without what would count on it in doubles: steps, and the bounds when it is left. */
function IntegerWidget({ id, htmlName, label, hideLabel, value, placeholder, required, disabled, readonly, schema, options, rawErrors = [], onChange, onBlur }: WidgetProps) {
  const stored = value as number | bigint | string | undefined;
  const isExact = typeof stored !== "bigint";
  return (
    <NumberInput
      id={id}
      name={htmlName ?? id}
      aria-describedby={ariaDescribedByIds(id)}
      label={labelValue(label, hideLabel, false)}
      description={hideLabel ? undefined : (options.description ?? schema.description)}
      value={isExact ? (stored ?? "") : stored.toString()}
      onChange={(typed) => onChange(/^-?\d+$/.test(String(typed)) ? integerOf(String(typed)) : typed === "" ? options.emptyValue : typed)}
      onBlur={() => onBlur(id, value)}
      allowDecimal={false}
      clampBehavior="none"
      trimLeadingZeroesOnBlur={false}
      hideControls={!isExact}
      withKeyboardEvents={isExact}
      placeholder={placeholder}
      required={required}
      disabled={disabled === true || readonly === true}
      error={rawErrors.length > 0 ? rawErrors.join("\n") : undefined}
    />
  );
}
