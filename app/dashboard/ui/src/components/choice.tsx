import { Stack } from "@mantine/core";
import type { EnumOptionsType, MultiSchemaFieldTemplateProps, RJSFSchema, WidgetProps } from "@rjsf/utils";
import { cloneElement, type ReactElement } from "react";
import { useTranslation } from "react-i18next";

import { optionTexts } from "./params-words";

/** `anyOf` and `oneOf`: which of them, and its input. rjsf numbers the options, and tells an error at both. */
export function Choice({ schema, registry, selector, optionSchemaField }: MultiSchemaFieldTemplateProps) {
  const { t } = useTranslation();
  const options = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].map((option) => registry.schemaUtils.retrieveSchema(option as RJSFSchema));
  const texts = optionTexts(t, options);
  const select = selector as ReactElement<WidgetProps> | undefined;
  const enumOptions = select?.props.options.enumOptions?.map((option: EnumOptionsType, index) => ({ ...option, label: texts[index] ?? option.label }));
  return (
    <Stack gap="xs">
      {select === undefined ? null : cloneElement(select, { options: { ...select.props.options, enumOptions, description: schema.description }, rawErrors: optionSchemaField === null ? select.props.rawErrors : [] })}
      {optionSchemaField}
    </Stack>
  );
}
